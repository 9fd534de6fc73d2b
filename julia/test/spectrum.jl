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
end
