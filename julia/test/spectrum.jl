@testset "spectrum" begin
    s = spectrum(Diagonal([3.0, 1.0, 2.0]) |> Matrix)
    @test s.eigenvalues ≈ [1, 2, 3]
    @test s.verdict == "PSD"
    for T in (Float32, Float64), (units, verdict) in ((4, "PSD"), (-4, "rounding"), (-100, "not PSD"))
        s = spectrum(Matrix(Diagonal(T[units * eps(T), 0.5, 0.25, 1])))
        @test s.verdict == verdict
        @test s.tolerance ≈ 20eps(T)
        @test s.units ≈ units
    end
    @test_throws DimensionMismatch spectrum(ones(2, 3))
    @test startswith(sprint(show, MIME("text/plain"), spectrum([2.0 0; 0 -1])), "not PSD: 2 eigenvalues")

    @test spectrum([2 1; 1 2]).eigenvalues ≈ [1, 3]
    @test spectrum([1.0 0.5; 0.5 + 2eps() 1.0]).verdict == "PSD"
    @test_throws "the kernel is empty" spectrum(zeros(0, 0))
    @test_throws "1 entries that are not finite" spectrum([1.0 0; 0 NaN])
    # Their sum with themselves is infinite, as is their norm: compared one by one.
    @test all(spectrum([1.6e308 0; 0 1.0e308]).eigenvalues .≈ [1.0e308, 1.6e308])
    @test_throws "not symmetric: K and K' differ by 0.5 of the largest entry" spectrum([1.0 0.5; 0 1])
    @test_throws "spectrum of a 2×2×1 Array{Float64, 3}; allowed: a square matrix" spectrum(ones(2, 2, 1))
    @test_throws "allowed: a square matrix" spectrum(complex.([1.0 0; 0 1]))
end
