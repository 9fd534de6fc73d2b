@testset "programs" begin
    step(operation, arguments...; value=nothing, setting=0) =
        UDLBridge.Step(operation, collect(Int, arguments), value, setting)

    @testset "a sum of squares and its gradient" begin
        x, y = [0.5, -1.0, 2.0], [1.0, 0.0, 3.0]
        # total((p[1] + p[2] * x - y)^2)
        steps = [
            step(:input), step(:item, 1; setting=1), step(:item, 1; setting=2), step(:constant; value=x),
            step(:multiply, 3, 4), step(:add, 2, 5), step(:constant; value=y), step(:subtract, 6, 7),
            step(:power, 8; setting=2), step(:sum, 9),
        ]
        p = [0.3, 0.7]
        residual = p[1] .+ p[2] .* x .- y
        @test UDLBridge.program_value(steps, p) ≈ sum(abs2, residual)
        @test UDLBridge.program_gradient(steps, p) ≈ [2sum(residual), 2sum(residual .* x)]
    end

    @testset "operations on the first axis, which is Python's last" begin
        f = [0.1 2.0; -1.0 0.5; 3.0 0.0]
        logsumexp = [step(:input), step(:logsumexp, 1), step(:sum, 2)]
        @test UDLBridge.program_value(logsumexp, f) ≈ sum(log.(sum(exp.(f); dims=1)))
        @test UDLBridge.program_gradient(logsumexp, f) ≈ softmax(f)
        column = [step(:input), step(:column, 1; setting=2), step(:sum, 2)]
        @test UDLBridge.program_value(column, f) == -0.5
        @test UDLBridge.program_gradient(column, f) == [0 0; 1 1; 0 0]
    end

    @testset "items of the last axis, which is Python's first" begin
        f = [0.1 2.0; -1.0 0.5; 3.0 0.0]
        item = [step(:input), step(:item, 1; setting=2), step(:power, 2; setting=2), step(:sum, 3)]
        @test UDLBridge.program_value(item, f) ≈ 4.25
        @test UDLBridge.program_gradient(item, f) ≈ [0 4; 0 1; 0 0]
    end

    @testset "a power of zero has the slope zero, at zero too" begin
        steps = [step(:input), step(:power, 1; setting=0), step(:sum, 2)]
        @test UDLBridge.program_value(steps, [0.0, -2.0]) == 2
        @test UDLBridge.program_gradient(steps, [0.0, -2.0]) == [0, 0]
    end

    @testset "no dependence is a zero gradient, and Float32 stays" begin
        steps = [step(:constant; value=3.0f0), step(:cos, 1)]
        @test UDLBridge.program_gradient(steps, [1.0f0, 2.0f0]) == [0, 0]
        steps = [step(:input), step(:exp, 1), step(:sum, 2)]
        @test UDLBridge.program_gradient(steps, [1.0f0]) isa Vector{Float32}
    end
end
